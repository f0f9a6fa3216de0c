"""The hybrid sampler: which rows meet in every batch."""
