"""Knowledge for C²VL's pre-training: sentences and pictures of clips become unit vectors, without a network.

`python -m train.knowledge` puts the parts together; train/knowledge_folder.py says what it leaves.
"""
