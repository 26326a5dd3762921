"""KTO against DPO and the plain baseline: one table of conditions x methods x seeds, by a protocol. Lessons 08, 08b."""
