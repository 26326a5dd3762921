"""What is done with the course's KTO: experiments, the museum of mistakes, benchmarks, bigger machines, own thumbs.

It imports `kto_utils`, never the other way round. Stored results lie in `results/`, launch scripts in `scripts/`.
"""

from pathlib import Path

RESULTS = Path(__file__).parent / "results"
SCRIPTS = Path(__file__).parent / "scripts"
