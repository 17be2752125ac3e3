"""From the records of ranks to one measured timeline."""
