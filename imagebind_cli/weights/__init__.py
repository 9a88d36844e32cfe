"""Model weights: find those behind a name, read them from files, and fetch them to this machine. Imports nothing by itself.

find.py            a name, folder, file or address to its checkpoint
checkpoint.py      the weights behind a model, one encoder read at a time; `convert` writes them as a model folder
model_config.py    what a model consists of, and our JSON of it
family.py          what a family says of itself: layouts of its files, preprocessing, published models
published.py       models that can be fetched by name: the package's and the families' own
foreign_config.py  configs that others write, and the layout of files that they describe
tensor_names.py    the tables of names: tensors of foreign files and ours
tensor_files.py    tensors in safetensors and PyTorch files; matrices as int8 rows
rule.py            weights made by rule, for models that need no file
run_folder.py      a training run's folder as a model: what training changed, over the weights it began from
download.py        models from an address or the hub, all or nothing; without torch, like the three below
fetch.py           one file over HTTP: resumed, retried, checked
hub.py             which files of a repository on the Hugging Face hub are taken
origin.py          the record beside downloaded files, and checks against it
verified.py        a weight file against its recorded SHA-256, once for each state of the file
convert.py         a checkpoint written as a model folder, exact or rounded
rounding.py        weights in a smaller number type, and back
describe.py        models listed, described, and checked against their record
"""
