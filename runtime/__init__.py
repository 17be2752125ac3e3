"""Programs are executed for real with `torch.distributed`, measured and compared.

The names that users need are in `twinline`. Nothing is imported here, so that the command line
can catch Ctrl-C before its imports begin.
"""
