"""How bytes flow: blocks fetched ahead, work in threads and processes, all of it within bounds.

Nothing here knows what the bytes are.
"""
