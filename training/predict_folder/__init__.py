"""Predicts a folder of any number of images, shard by shard, on one machine or on several with Ray.

listing.py lists the files, submitted.py loads the model, shard.py predicts one shard, table.py writes it, cluster.py
distributes shards with Ray, and command.py calls them.
"""
