-- Every message that deletes a row: its key is the row's, and it has no value. Others without a value are rejects.
SELECT whole_number(key) AS ind, _partition, _offset, time_of(posted_ms) AS _posted_at
FROM bronze
WHERE value_is = 'n' AND key_is = 't' AND whole_number(key) IS NOT NULL
