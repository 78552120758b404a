-- The poster with the most followers in each country
-- Each poster counts once; ties are kept.
SELECT country, poster_name, follower_count
FROM (
  SELECT geo.country, pin.poster_name, max(pin.follower_count) AS follower_count,
    rank() OVER (PARTITION BY geo.country ORDER BY max(pin.follower_count) DESC) AS place
  FROM pin JOIN geo ON pin.ind = geo.ind
  WHERE geo.country IS NOT NULL AND pin.poster_name IS NOT NULL AND pin.follower_count IS NOT NULL
  GROUP BY geo.country, pin.poster_name
)
WHERE place = 1
ORDER BY country, poster_name
