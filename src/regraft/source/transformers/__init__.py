"""Encoders of Hugging Face's transformers: pictures, texts, recordings; and folders of sentence-transformers.

In: a name on the hub, or a folder. Out: a `Source` with its tokenizer or preprocessing read off the folder's files.
Law: token ids and features are those of AutoTokenizer and AutoModel.
"""
