"""The operations of the program language on real tensors, by kind; `table` lists them."""
