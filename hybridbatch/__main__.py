"""`python -m hybridbatch` and the console script."""

from hybridbatch.cli.app import main

if __name__ == "__main__":
    main()
