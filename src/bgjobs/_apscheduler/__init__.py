"""The border with APScheduler: the only wing that imports it.

What it uses beyond the public API, each pinned by a test:

    BaseScheduler      _executors, _jobstores (no public list), _process_jobs (its return value is the next sleep),
                       _jobstores_lock (held for each pass and each change), _dispatch_event
    AsyncIOScheduler   _eventloop
    BaseExecutor       _do_submit_job (what APScheduler asks of executors), _run_job_success, _scheduler, _logger
    AsyncIOExecutor    _eventloop, _pending_futures
    BasePoolExecutor   _pool; of the standard library's pools, _shutdown and _max_workers
    Job                _jobstore_alias
    functions          executors.base.run_job, run_coroutine_job
"""
