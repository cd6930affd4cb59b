"""AWS over HTTP: signed requests, and nothing that is not needed for them.

Every byte of an artifact goes through here, and every command starts here. ``botocore`` would do
the same, but to load it and to make two of its clients takes 0.25 s, more than all the rest of a
small fetch; and it cannot try again what was cut in the middle of a body. So requests are made
here, and botocore is asked what only it knows: who the caller is and where a service lies, where
that takes more than the environment to tell. ::

    settings ──▶ service ──▶ sigv4
    (who, where)    │  (retries, renewal, refusals)
       │            ├──▶ transport ──▶ message (one exchange)
       ▼            │        └──▶ tls, origin (whom to trust, proxies)
    botocore_       │
    settings        │
                    │
    s3_api ─────────┤
    json_api ───────┘

No module here knows what a job or an archive is.
"""
