-- The median number of followers in each age group.
SELECT age_group(users.age) AS age_group, CAST(median(pin.follower_count) AS DOUBLE) AS median_follower_count
FROM pin JOIN users ON pin.ind = users.ind
WHERE users.age >= 18
GROUP BY age_group(users.age)
ORDER BY age_group
