"""Virtual time: the engine, contention, and what instructions cost."""
