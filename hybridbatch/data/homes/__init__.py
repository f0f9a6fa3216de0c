"""Public homes of data sets, and the builders that make our files of theirs."""
