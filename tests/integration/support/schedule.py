"""How a run with several processes (pytest-xdist) is divided: a file's tests stay together, the longest files come first, and tests
marked `alone` run last, in one process, when all others have ended."""

import ast
import functools

from xdist.scheduler import LoadScopeScheduling

ALONE = "alone"
# Files that take longest, as `--durations=0` sums up; the order of all others does not matter.
LONGEST = [
    "test_cluster_faults",
    "test_zookeeper",
    "test_metrics",
    "test_damage",
    "test_compare_tools",
    "test_quotas",
    "test_cluster_metadata",
    "test_crash",
    "test_other_clients",
    "test_bad_input",
    "test_groups",
    "test_console",
    "test_package",
    "test_cluster_network",
    "test_clients",
    "test_compaction",
    "test_cli_consume",
    "test_power_cut",
    "test_java_tools",
]


def place(scope):
    name = scope.rsplit("/", 1)[-1].removesuffix(".py")
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)


@functools.cache
def alone_in(path):
    """Tests of a file that are marked: the process that hands tests out knows their names only."""
    mark, body = f"pytest.mark.{ALONE}", ast.parse(path.read_text()).body
    whole = any(line.startswith("pytestmark = ") and mark in line for line in map(ast.unparse, body))
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    return {f.name for f in functions if whole or any(ast.unparse(d) == mark for d in f.decorator_list)}


class Scheduling(LoadScopeScheduling):
    """xdist's own, by file, but for the tests that run alone."""

    def _split_scope(self, nodeid):
        path, name = nodeid.split("::", 1)
        return ALONE if name.split("[")[0] in alone_in(self.config.rootpath / path) else path

    def _ordinary(self):
        return [scope for scope in self.workqueue if scope != ALONE]

    def _assign_work_unit(self, node):
        ordinary = self._ordinary()
        if ordinary:
            self.workqueue.move_to_end(min(ordinary, key=place), last=False)
        elif len(self.nodes) > 1:
            return
        super()._assign_work_unit(node)

    def _reschedule(self, node):
        if node.shutting_down or self._ordinary() or not self.workqueue:
            super()._reschedule(node)
        elif self._pending_of(self.assigned_work[node]) <= 2:
            if any(other is not node and not other.shutting_down for other in self.nodes):
                # It finishes what it has; one of the others takes what runs alone.
                node.shutdown()
            elif len(self.nodes) == 1:
                super()._reschedule(node)

    def remove_node(self, node):
        """A test that its process did not survive is not run again, as xdist would; what the process had left is."""
        workload = self.assigned_work.pop(node)
        left = [(unit, test) for unit in workload.values() for test, done in unit.items() if not done]
        if left:
            unit, crashed = left[0]
            unit[crashed] = True
            self.workqueue.update({scope: unit for scope, unit in workload.items() if not all(unit.values())})
        for other in self.nodes:
            # A process that has just taken another's place is given work once it has told its tests.
            if other in self.registered_collections:
                self._reschedule(other)
        return left[0][1] if left else None
