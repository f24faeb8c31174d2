"""The service: parts come in over HTTP or from a folder, verdicts go out and are never lost.

    upload, folder ─► Journal: accepted ─► Batcher ─► Judge ─► Journal: judged ─► sinks: delivered
                      requests/<id>/                           pictures

`judge` is the one-method protocol behind which a run or an exported file judges; `journal` the log
in SQLite that a crash cannot tear; `batcher` the bounded queue; `sinks` where verdicts go;
`watcher` the folder they may come from; `app` the HTTP face, with `guard` before it and `page/` in
it.
"""
