"""Files of weights that others have made or will read <-> our parameters.

``importing`` reads Caffe, PyTorch, ONNX, safetensors and npz files, recognised by their
content; ``exporting`` writes what those programs read. None of them is needed for it,
and nothing in a file is ever executed.
"""
