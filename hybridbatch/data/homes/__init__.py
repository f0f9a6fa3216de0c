"""Public homes of data sets, and the builders that convert them to our files."""
