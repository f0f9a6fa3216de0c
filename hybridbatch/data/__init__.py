"""The data builders: training data and evaluation tasks."""
