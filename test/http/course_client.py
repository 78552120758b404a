"""The course's way to post: requests, its headers and bodies, times as Python writes them. Only the URL is ours.

python3 course_client.py URL N: posts N triples to each of the two endpoints; ends with 1 when one is not taken.
"""

import datetime
import json
import sys

import requests

url, count = sys.argv[1], int(sys.argv[2])
headers = {"Content-Type": "application/vnd.kafka.json.v2+json"}


def triple(n):
    pin = {
        "index": n, "unique_id": f"id-{n}", "title": "“Ideen” für 2024 🎄\n", "description": "Some text…\u00a0",
        "poster_name": "A", "follower_count": "12k", "tag_list": "a,b", "is_image_or_video": "image",
        "image_src": "https://i.pinimg.com/a.jpg", "downloaded": 1,
        "save_location": "Local save in /data/art", "category": "art",
    }
    geo = {"ind": n, "timestamp": datetime.datetime(2018, 8, 29, 13, 27, 39), "latitude": -88.8298,
           "longitude": -170.188, "country": "Albania"}
    user = {"ind": n, "first_name": "Adam", "last_name": "Acosta", "age": 20,
            "date_joined": datetime.datetime(2015, 10, 21, 21, 26, 45)}
    return {"pin": pin, "geo": geo, "user": user}


for n in range(count):
    for table, row in triple(n).items():
        payload = json.dumps({"records": [{"value": row}]}, default=str)
        response = requests.request("POST", f"{url}/topics/0a5e6ec37a2f.{table}", headers=headers, data=payload)
        if response.status_code != 200:
            sys.exit(f"{response.status_code} {response.text}")
session = requests.Session()
for n in range(count, 2 * count):
    for table, row in triple(n).items():
        body = json.loads(json.dumps({"topic_name": table, "data": row}, default=str))
        response = session.post(f"{url}/send-data", json=body)
        if response.status_code != 200:
            sys.exit(f"{response.status_code} {response.text}")
