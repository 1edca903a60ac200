"""The expected cells, computed from the database with Python's time zones."""

import datetime
from zoneinfo import ZoneInfo

UTC = datetime.timezone.utc
HOUR = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)


def hour_of(instant):
    return instant.replace(minute=0, second=0, microsecond=0)


def counts(db, begin, source=None):
    """The count of each UTC hour, from the table."""
    rows = db.execute("SELECT date_trunc('hour', timestamp, 'UTC'), count(*) FROM public.events"
                      " WHERE timestamp >= %s AND (%s::text IS NULL OR source = %s) GROUP BY 1", (begin, source, source))
    return {hour.astimezone(UTC): count for hour, count in rows}


def table(counted, begin, now, zone):
    """A list of (date, the texts of 24 cells) for each local day, newest first."""
    zone = ZoneInfo(zone)
    first, last = hour_of(begin).astimezone(zone).date(), now.astimezone(zone).date()
    days = {}
    day = last
    while day >= first:
        days[day] = [[] for _ in range(24)]
        day -= DAY
    hour = hour_of(begin) - 2 * DAY
    while hour < now + 3 * DAY:
        local = hour.astimezone(zone)
        if local.date() in days:
            count = counted.get(hour, 0)
            shown = hour >= hour_of(begin) and (hour <= now or count)
            days[local.date()][local.hour].append(str(count) if shown else "")
        hour += HOUR
    return [(day.isoformat(), [cell or [""] for cell in cells]) for day, cells in days.items()]


def transitions(zone, after, count=2):
    """The next instants at which the offset of a time zone changes."""
    zone = ZoneInfo(zone)
    found = []
    hour = hour_of(after)
    while len(found) < count:
        if (hour + HOUR).astimezone(zone).utcoffset() != hour.astimezone(zone).utcoffset():
            found.append(hour + HOUR)
        hour += HOUR
    return found
