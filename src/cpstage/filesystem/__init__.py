"""The file system below one directory: safe writes, walking in order, globs, and removal."""
