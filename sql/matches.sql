-- The number of pins, and of pins with a row in the other tables.
SELECT CAST(count(*) AS BIGINT) AS pins, CAST(count(geo.ind) AS BIGINT) AS with_geo,
  CAST(count(users.ind) AS BIGINT) AS with_user,
  CAST(count(CASE WHEN geo.ind IS NOT NULL AND users.ind IS NOT NULL THEN 1 END) AS BIGINT) AS with_both
FROM pin LEFT JOIN geo ON pin.ind = geo.ind LEFT JOIN users ON pin.ind = users.ind
