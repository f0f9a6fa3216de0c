"""Official MTEB results: any mteb retrieval task, each text encoded once, written as mteb itself
writes them.
"""
