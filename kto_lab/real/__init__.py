"""A real chat model on a laptop: questions, thumbs, KTO, and what it cost. Lessons 12 and 12c; `course.py real`."""
