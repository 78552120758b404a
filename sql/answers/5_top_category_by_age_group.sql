-- The most frequent category of each age group
-- Ties are kept.
SELECT age_group, category, category_count
FROM (
  SELECT age_group(users.age) AS age_group, pin.category, CAST(count(*) AS BIGINT) AS category_count,
    rank() OVER (PARTITION BY age_group(users.age) ORDER BY count(*) DESC) AS place
  FROM pin JOIN users ON pin.ind = users.ind
  WHERE users.age >= 18
  GROUP BY age_group(users.age), pin.category
)
WHERE place = 1
ORDER BY age_group, category NULLS LAST
