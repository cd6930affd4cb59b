"""Archives: zip, tar and tar.gz, in and out.

Unpacking. A blob is read once, from its start to its end, in blocks that threads fetch ahead; what
comes out goes straight into the files of a tree that nobody sees yet::

    blob ──▶ flow.readahead ──┬──▶ zip.reader ──▶ zip.data ──────┐
      │      (blocks, in      │    (groups,       (inflate, CRC)  ├──▶ tree
      │       order)          │     large ones)   in flow.forked  │    (by descriptor)
      │                       └──▶ tar.gzip ──▶ tar.reader ───────┘
      │                            (in flow.ahead)  (member by member)
      └──▶ zip.ends ──▶ zip.directory ──▶ plan ◀── names, limits
           (the tail)   (all entries)     (all of it before the first write; of a tar, each member)

The directory of a zip is read from its end first, and all that it says is held against itself:
counts, places, names, methods, sizes. Nothing is written before the plan has admitted every entry
and the targets of all links. Each local header is compared with the directory when its bytes
arrive. A tar has no directory; its members are admitted as they come. In both, links are created
last, and whoever calls publishes the tree only when the last byte has been read and verified.

Packing. A list of entries is cut into portions of work, whose bytes depend on the list alone::

    walk ──▶ pack ──▶ portions ──┬──▶ zip.packer ──▶ zip.writer ───┬──▶ a stream of bytes
             (names,  (groups,   │    (zip.packed,   (offsets,      │    (in the order
              links)   blocks)   │  in flow.forked)   directory)    │     of the list)
                                 └──▶ tar.writer ──────────────────┘
                                      (in flow.ordered)

The first of many small files are packed into a zip while the rest is still being listed
(``flow.early``); nobody gets any of it before the list is complete and checked.

Where a zip has many files, child processes read and write them, where it has few, threads
(:mod:`~cpstage.archive.flow.forked` says why); a large one is decoded in one thread and written in
another. Threads, processes and bounds are in ``flow``, which knows nothing of formats. What comes
out of an archive is untrusted until :mod:`~cpstage.archive.plan` has admitted it. Nothing here
knows of AWS, and nothing but :mod:`~cpstage.tree` writes to disk.
"""
