-- All process managers read together, as one consumer. What dispatch has done, they have done; its
-- snapshots are dropped, so that every manager folds the log anew, without effects.

INSERT INTO cursors (consumer, partition, epoch, position)
    SELECT 'managers', partition, epoch, position FROM cursors WHERE consumer = 'dispatch'
    ON CONFLICT DO NOTHING;
DELETE FROM cursors WHERE consumer = 'dispatch';
DELETE FROM snapshots WHERE consumer = 'dispatch';
