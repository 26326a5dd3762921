"""`python course.py bench`: what a KTO step costs here, in the plain form of lesson 07, and in TRL.

All contenders see the same rows in the same order, start from the same weights and use the same optimiser settings.
Each runs its own training loop in its own fresh process; the processes take turns step by step. A step is what passes
from one optimiser step to the next. TRL comes with the requirements of the tests. Lesson 12 reads the results.
"""
