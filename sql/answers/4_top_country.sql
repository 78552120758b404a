-- The country whose top poster has the most followers
-- Ties are kept.
SELECT country, follower_count
FROM (
  SELECT geo.country, max(pin.follower_count) AS follower_count,
    rank() OVER (ORDER BY max(pin.follower_count) DESC) AS place
  FROM pin JOIN geo ON pin.ind = geo.ind
  WHERE geo.country IS NOT NULL AND pin.poster_name IS NOT NULL AND pin.follower_count IS NOT NULL
  GROUP BY geo.country
)
WHERE place = 1
ORDER BY country
