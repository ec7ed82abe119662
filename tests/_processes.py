"""Functions in processes of their own, which a test may kill and never waits for in vain."""

import multiprocessing


def start(function, *arguments, **options):
    """Start a function of a module in a process of its own, forked from one that has imported what takes long."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fewshotseg.results", "torch._dynamo", "torch.utils.data", "tqdm"])
    process = context.Process(target=function, args=arguments, kwargs=options, daemon=True)
    process.start()
    return process


def run_together(function, world, *arguments):
    """Run ``function(rank, world, ...)`` in several processes to the end."""
    processes = [start(function, rank, world, *arguments) for rank in range(world)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * world
