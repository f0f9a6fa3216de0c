"""The retrieval scorer: ranks, metrics, language bias, tests, baselines, audits, figures."""
