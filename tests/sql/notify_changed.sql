-- concurrency_test.sh tests that notifications arrive: a session gets its own only after COMMIT.
BEGIN;
SELECT no_plan();

SELECT function_returns('public', 'notify_changed', ARRAY[]::text[], 'trigger');
SELECT trigger_is('public', t, 'notify_changed', 'public', 'notify_changed', t || ' has the trigger')
FROM unnest(ARRAY['monitor_keys', 'access_tokens']::name[]) AS t;
SELECT results_eq($$
  SELECT tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'notify_changed' ORDER BY 1
$$, $$
  SELECT t, 'CREATE TRIGGER notify_changed AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.' || t
    || ' FOR EACH STATEMENT EXECUTE FUNCTION notify_changed()'
  FROM unnest(ARRAY['access_tokens', 'monitor_keys']) AS t
$$, '... for every kind of change, once per statement');

SELECT * FROM finish();
ROLLBACK;
