"""Installations of more than one machine, on this one: of each, the tests of the contract know what its users do."""

import contextlib
import datetime

from front_ends import FrontEnd, behind_nginx, settle
from pooler import Pooler
from replicas import Pair
from shards import PooledShards
from stack import SLOWNESS, Site, running


class Arrangement(Site):
    def __init__(self, values, front_ends):
        super().__init__(values)
        self.front_ends = front_ends

    def settle(self, *request):
        settle(self.front_ends, *request)


@contextlib.contextmanager
def pgbouncer():
    """Two front ends that reach one database through PgBouncer in transaction mode."""
    with running("pooled") as stack, contextlib.ExitStack() as held:
        pooler = Pooler(stack)
        held.callback(pooler.stop)
        # Fewer connections than the programs have together, so that sessions change hands.
        pooler.configure(default_pool_size=2, **pooler.default_preparing())
        pooler.start()
        front_ends = [FrontEnd(stack, "near", **pooler.environment), FrontEnd(stack, "far", "127.0.0.2", **pooler.environment)]
        for each in front_ends:
            held.callback(each.stop)
            each.start()
        held.enter_context(behind_nginx(stack, front_ends))
        yield Arrangement(stack.values, front_ends)


@contextlib.contextmanager
def standby():
    """Two front ends whose queries a standby answers; it shows each batch before that is acknowledged."""
    with running("replicated") as stack, contextlib.ExitStack() as held:
        pair = Pair(stack)
        held.callback(pair.remove)
        pair.attach()
        pair.make_synchronous()
        pair.apply_before_acknowledging()
        front_ends = [FrontEnd(stack, "near", **pair.hosts()), FrontEnd(stack, "far", "127.0.0.2", **pair.hosts(pair.standby))]
        for each in front_ends:
            held.callback(each.stop)
            each.programs["ingest"].environment["PGTARGETSESSIONATTRS"] = "read-write"
            each.programs["query"].environment["PGTARGETSESSIONATTRS"] = "prefer-standby"
            each.start()
        held.enter_context(behind_nginx(stack, front_ends))
        made = Arrangement(stack.values | pair.steepctl(), front_ends)
        # The primary tells its time every 3 to 5 s.
        made.data_age = datetime.timedelta(seconds=7 * SLOWNESS)
        yield made
        primary, standby = pair.sessions("query.fcgi")
        assert standby > 0 and primary == 0, "queries were not the standby's"


@contextlib.contextmanager
def router():
    """The programs on a router of two shards, which it reaches through PgBouncer."""
    with running("router") as stack, contextlib.ExitStack() as held:
        shards = PooledShards(stack, router=False)
        held.callback(shards.remove)
        shards.divide(stack)
        yield Arrangement(stack.values, [])


# More of them: an arrangement yields the Arrangement, whose PG* are those that steepctl needs.
ALL = {"pgbouncer": pgbouncer, "standby": standby, "router": router}


def standing(name):
    """The Site of an arrangement, until the end of the context."""
    return ALL[name]()


# What tests/run contract runs, unless it is told.
if __name__ == "__main__":
    print(*ALL)
