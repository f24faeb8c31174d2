"""In place of worker processes: the same work here, where it can be watched."""

from concurrent.futures import Future


class InThisProcess:
    """A pool of processes that does its work at once, in this one."""

    def __init__(self, workers, initializer, initargs, **_):
        self._initialize = lambda: initializer(*initargs)

    def submit(self, work, *arguments):
        self._initialize()
        job = Future()
        try:
            job.set_result(work(*arguments))
        except Exception as error:
            job.set_exception(error)
        return job

    def shutdown(self, **_):
        pass
