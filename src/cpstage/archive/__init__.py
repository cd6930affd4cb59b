"""Archives: zip, tar and tar.gz, read and written.

Unpacking reads a blob once, from its start to its end, in blocks that threads fetch ahead; output
goes straight into the files of a staging tree::

    Blob ──▶ ReadAhead ──┬──▶ zip_reader ──▶ inflate, CRC ───┐
      │     (blocks, in  │    (groups,       (in workers)    ├──▶ filesystem.Tree
      │      order)      │     large files)                  │    (by descriptor)
      │                  └──▶ inflate ──────▶ tar_reader ────┘
      │                       (in a thread)  (member by member)
      └──▶ zip_directory ──▶ paths.Plan
           (all entries)     (before the first write; of a tar, each member)

The central directory of a zip is read first and validated as a whole; nothing is written before the
plan has admitted every entry and the targets of all symlinks. Each local file header is compared
with the central directory when its bytes arrive. A tar has no directory: its members are admitted
as they come. Symlinks are created last, and the caller publishes the tree after the last byte has
been read and verified.

Packing cuts a list of entries into units, whose bytes depend on the list alone::

    walk ──▶ pack ──▶ packing_list ──┬──▶ zip_writer ─┬──▶ a stream of bytes
             (names,  (batches,      │    (workers)   │    (in the order of the list)
              links)   file parts)   └──▶ tar_writer ─┘

The first of many small files are packed while the rest is still being listed; no byte leaves before
the list is complete and checked.
"""
