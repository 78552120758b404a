-- Every delete: a message without a value whose key is the ind of a row. Other messages without a value are rejects.
SELECT whole_number(key) AS ind, _partition, _offset, time_of(posted_ms) AS _posted_at
FROM bronze
WHERE value_is = 'n' AND key_is = 't' AND whole_number(key) IS NOT NULL
