-- Posts of each category by year, 2018 to 2022
SELECT utc_year(geo.timestamp) AS post_year, pin.category, CAST(count(*) AS BIGINT) AS category_count
FROM pin JOIN geo ON pin.ind = geo.ind
WHERE utc_year(geo.timestamp) BETWEEN 2018 AND 2022
GROUP BY utc_year(geo.timestamp), pin.category
ORDER BY post_year, category NULLS LAST
