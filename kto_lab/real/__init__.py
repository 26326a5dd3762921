"""A real chat model on a laptop: questions, replies, thumbs, KTO, and what it cost. Lesson 12, 12c; `course.py real`."""
