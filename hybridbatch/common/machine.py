"""Environment variables by which one process tells another what part of the machine it has."""

# The share of its GPU's memory that a process may use, where several have one GPU.
FRACTION = "HYBRIDBATCH_GPU_FRACTION"
# The library by which processes meet, in place of NCCL on GPUs (gloo).
BACKEND = "HYBRIDBATCH_BACKEND"
