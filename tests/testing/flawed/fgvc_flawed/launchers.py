import multiprocessing
from multiprocessing.connection import wait

from fgvc_cli import FgvcError
from fgvc_cli.contracts import Launcher, RunEnded


class Sound(Launcher):
    capacity = None

    def __init__(self, options, jobs, device):
        self.capacity, self.processes, self.cancelled = jobs or 1, {}, set()

    def start(self, study):
        if problem := study.check():
            raise FgvcError(problem)

    def submit(self, runs):
        for run in runs:
            self.processes[run.name] = multiprocessing.get_context("fork").Process(target=run.work, args=(1,))
            self.processes[run.name].start()

    def ended(self, seconds):
        wait([process.sentinel for process in self.processes.values()], seconds)
        codes = {name: process.exitcode for name, process in self.processes.items() if not process.is_alive()}
        self.processes = {name: process for name, process in self.processes.items() if name not in codes}
        fine = {name for name, code in codes.items() if code == 0} | self.cancelled
        return [RunEnded(name, "" if name in fine else f"exit code {code}") for name, code in codes.items()]

    def cancel(self, names):
        for name in self.processes.keys() & set(names):
            self.cancelled.add(name)
            self.processes[name].terminate()

    def close(self):
        self.cancel(list(self.processes))
        for process in self.processes.values():
            process.join()
        self.processes.clear()


class InProcess(Sound):
    def submit(self, runs):
        for run in runs:
            run.work(1)
        self.names = [run.name for run in runs]

    def ended(self, seconds):
        names, self.names = self.names, []
        return [RunEnded(name) for name in names]


class Silent(Sound):
    def ended(self, seconds):
        return [RunEnded(each.name) for each in super().ended(seconds)]


class Sweeping(Sound):
    def cancel(self, names):
        super().cancel(list(self.processes))


class Blaming(Sound):
    def cancel(self, names):
        super().cancel(names)
        self.cancelled.clear()


class Leaving(Sound):
    def close(self):
        pass


class Trusting(Sound):
    def start(self, study):
        pass
