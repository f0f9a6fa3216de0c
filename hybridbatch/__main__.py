"""`python -m hybridbatch` and the console script."""

from hybridbatch.cli import main

if __name__ == "__main__":
    main()
