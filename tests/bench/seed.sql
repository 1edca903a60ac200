-- The reference: the table, indexes and functions of the data model, unchanged. They
-- read eventType only, so the bench's events use that name.

CREATE TABLE public.events (
  id TEXT PRIMARY KEY,
  source TEXT NOT NULL,
  timestamp TIMESTAMPTZ NOT NULL,
  event_type TEXT NOT NULL CHECK (event_type IN (
    'session', 'activity', 'tool', 'agent', 'summary', 'error'
  )),
  payload JSONB NOT NULL,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

CREATE INDEX idx_events_timestamp ON public.events (timestamp DESC);
CREATE INDEX idx_events_source ON public.events (source);
CREATE INDEX idx_events_source_timestamp ON public.events (source, timestamp DESC);

ALTER TABLE public.events ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.events FORCE ROW LEVEL SECURITY;

CREATE OR REPLACE FUNCTION public.bulk_insert_events(events_json JSONB)
RETURNS TABLE(inserted_count BIGINT) AS $$
BEGIN
  RETURN QUERY
  WITH inserted AS (
    INSERT INTO public.events (id, source, timestamp, event_type, payload)
    SELECT
      (e->>'id')::TEXT,
      (e->>'source')::TEXT,
      (e->>'timestamp')::TIMESTAMPTZ,
      (e->>'eventType')::TEXT,
      e->'payload'
    FROM jsonb_array_elements(events_json) AS e
    ON CONFLICT (id) DO NOTHING
    RETURNING 1
  )
  SELECT COUNT(*)::BIGINT FROM inserted;
END;
$$ LANGUAGE plpgsql SECURITY DEFINER;

CREATE OR REPLACE FUNCTION public.get_hourly_aggregates(
  days_back INTEGER DEFAULT 7,
  source_filter TEXT DEFAULT NULL
)
RETURNS TABLE(
  source TEXT,
  date DATE,
  hour INTEGER,
  event_count BIGINT
) AS $$
BEGIN
  RETURN QUERY
  SELECT
    e.source,
    DATE(e.timestamp AT TIME ZONE 'UTC') AS date,
    EXTRACT(HOUR FROM e.timestamp AT TIME ZONE 'UTC')::INTEGER AS hour,
    COUNT(*)::BIGINT AS event_count
  FROM public.events e
  WHERE
    e.timestamp >= NOW() - (days_back || ' days')::INTERVAL
    AND (source_filter IS NULL OR e.source = source_filter)
  GROUP BY e.source, DATE(e.timestamp AT TIME ZONE 'UTC'), EXTRACT(HOUR FROM e.timestamp AT TIME ZONE 'UTC')
  ORDER BY date DESC, hour DESC;
END;
$$ LANGUAGE plpgsql SECURITY DEFINER;
