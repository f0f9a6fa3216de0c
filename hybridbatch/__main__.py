"""`python -m hybridbatch` and the console script."""

import sys

try:
    from hybridbatch.cli.app import program
except KeyboardInterrupt:  # before there was anything to stop
    sys.exit(130)

if __name__ == "__main__":
    program()
