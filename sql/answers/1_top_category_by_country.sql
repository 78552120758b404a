-- The most frequent category of each country
-- Ties are kept.
SELECT country, category, category_count
FROM (
  SELECT geo.country, pin.category, CAST(count(*) AS BIGINT) AS category_count,
    rank() OVER (PARTITION BY geo.country ORDER BY count(*) DESC) AS place
  FROM pin JOIN geo ON pin.ind = geo.ind
  WHERE geo.country IS NOT NULL
  GROUP BY geo.country, pin.category
)
WHERE place = 1
ORDER BY country, category NULLS LAST
