"""lava-dl's `.net` files, written for tests as its blocks write them."""

import h5py


def write(path, layers):
    """Write layers, each a dictionary with type, shape and so on, `neuron` another; return the path."""
    with h5py.File(path, "w") as file:
        for index, layer in enumerate(layers):
            group = file.create_group(f"layer/{index}")
            group.create_dataset("type", (1,), "S10", [layer["type"].encode()])
            for key, value in layer.items():
                if key == "neuron":
                    for name, item in value.items():
                        group.create_dataset(f"neuron/{name}", data=item)
                elif key != "type":
                    group.create_dataset(key, data=value)
        file.create_group("simulation").create_dataset("Ts", data=1)
    return path
