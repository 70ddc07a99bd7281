"""Work on other machines, through Dask: packed jobs (`parcel`), the code that runs there (`worker`), and its distribution (`pool`)."""
