-- What waits for a partner that is shut is given up when its time is over; who looks for that must not read all that
-- still has time, which may be a million.
CREATE INDEX job_gives_up ON job (queue, gives_up_at)
    WHERE state IN ('READY', 'CLAIMED', 'ATTEMPT_OPEN') AND kind = 'send';
